"""The command line: parse, call the control plane, print."""
