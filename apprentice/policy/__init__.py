"""What answers a prompt: token ids in; token ids, log-probabilities and the policy's version out."""
