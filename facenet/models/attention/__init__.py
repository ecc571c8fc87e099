"""Linear attention: random features, sums over tokens, layers, blocks over feature maps."""
