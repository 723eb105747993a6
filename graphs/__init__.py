"""Any MXNet symbol as a graph: attributes, shapes, counts, liveness, folding, pruning, strip, proof, rewrites."""
