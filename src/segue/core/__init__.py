"""What a rollout is: pure values and functions, the standard library only, no clock, no input or output."""
