"""Where instances run. One file per platform; what the process platform is made of lies beside it."""
