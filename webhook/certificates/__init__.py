"""The certificate that the webhook serves with: where it comes from, its renewal, and kube-apiserver's trust in it.

From the inside out: `pairs` reads what PEM says, `issuing` makes new ones, `renewing` says when; all three pure.
`handshakes` gives the newest to TLS. `files` and `secret` are the two places it comes from, `registrations` keeps
caBundle, and `keeping` does it all in the right order.
"""
