"""What tests are made of: fakes of the ports, a clock that needs no time, and the contracts every adapter keeps."""
