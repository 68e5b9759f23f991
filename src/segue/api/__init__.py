"""The HTTP API of the control plane: it reads the journal and submits requests."""
