"""Test on KITTI 2015's training pairs."""

val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    collate_fn=dict(type="pseudo_collate"),
    sampler=dict(type="ffplug.FlowSampler", shuffle=False, infinite=False),
    dataset=dict(
        type="ffplug.KITTI2015Dataset",
        data_root="data/KITTI",
        split="train",
        pipeline=[dict(type="ffplug.LoadFlowPair"), dict(type="ffplug.PackFlowInputs")],
    ),
)
val_evaluator = dict(type="ffplug.FlowMetric")
test_dataloader = val_dataloader
test_evaluator = val_evaluator
