"""The engine carries plans out: it writes the next demand down and waits until it is true."""
