"""DecFlow: facial flow decomposed into head flow and expression flow."""
