"""Encoders and update block run again for the gradient in place of keeping their activations (docs/machines.md)."""

activation_checkpointing = ["encoder", "context_encoder", "decoder.update"]
