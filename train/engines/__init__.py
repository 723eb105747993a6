"""What computes a training step: MXNet, or PyTorch, behind one interface."""
