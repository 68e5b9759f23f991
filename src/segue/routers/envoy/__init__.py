"""The router that is an Envoy beside the control plane. Kept empty: the guardian imports `static` from here."""
