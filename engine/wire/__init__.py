"""The wire: messages, codec, sockets, clocks, security. docs/protocol.md is the contract."""
