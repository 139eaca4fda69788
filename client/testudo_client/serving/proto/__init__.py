"""The service as Protocol Buffers state it (serve.proto), and what protoc makes of that."""
