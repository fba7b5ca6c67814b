"""The paper's tables on any corpus: variants and seeds trained, measured and compared."""
