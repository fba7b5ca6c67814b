"""The offline trainer: corpora to bundles. Needs the extra ``train``."""
