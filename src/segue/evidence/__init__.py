"""What is observed of a service's requests: one adapter of the `Evidence` port per source."""
