"""How samples are drawn and batched; the data configs set the dataset.

There is no test set: testing takes that of validation.
"""

train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type="ffplug.FlowSampler", shuffle=True, infinite=True),
    collate_fn=dict(type="pseudo_collate"),
    dataset=None,
)

val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="ffplug.FlowSampler", shuffle=False, infinite=False),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(type="ffplug.SintelDataset", data_root="data/Sintel", render="both", split="all"),
)
val_evaluator = dict(type="ffplug.FlowMetric")
