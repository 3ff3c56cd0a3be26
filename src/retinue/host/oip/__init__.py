"""The Open Inference Protocol, version 2: one meaning (`inference`), two fronts (REST, gRPC)."""
