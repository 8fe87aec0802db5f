"""SAMFlow (AAAI 2024): FlowFormer whose context sees a frozen Segment-Anything encoder."""
