"""SRFlowNet: facial flow from Gaussian splatting, and losses that regularise it."""
