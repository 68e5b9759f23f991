"""The contracts of the ports: suites that every adapter and its fake pass."""
