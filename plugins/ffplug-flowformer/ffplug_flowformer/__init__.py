"""FlowFormer (Huang et al., ECCV 2022) as parts of FFPlug's recurrent flow estimator."""
