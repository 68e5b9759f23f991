"""Judges: numbers in, verdict out. Pure, the standard library only, no clock, no input or output."""
