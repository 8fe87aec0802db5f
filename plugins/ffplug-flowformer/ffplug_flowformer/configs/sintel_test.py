"""Test on Sintel's training scenes, both passes, which the stages up to Things have never seen."""

val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    collate_fn=dict(type="pseudo_collate"),
    sampler=dict(type="ffplug.FlowSampler", shuffle=False, infinite=False),
    dataset=dict(
        type="ffplug.SintelDataset",
        data_root="data/Sintel",
        render="both",
        split="all",
        pipeline=[dict(type="ffplug.LoadFlowPair"), dict(type="ffplug.PackFlowInputs")],
    ),
)
val_evaluator = dict(type="ffplug.FlowMetric")
test_dataloader = val_dataloader
test_evaluator = val_evaluator
