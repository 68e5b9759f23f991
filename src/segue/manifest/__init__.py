"""The manifest, `segue.yaml`: what it may say (`schema`), how it is read (`load`), how one begins (`init`)."""
