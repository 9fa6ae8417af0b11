"""Training of the network that sees a CT and, where there is one, an MR laid onto it."""
