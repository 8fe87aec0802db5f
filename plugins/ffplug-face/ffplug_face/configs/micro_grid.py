"""Micro-expressions by logistic regression on 147 numbers; the base of the recipes with networks.

Flow is Farneback's, which needs no weights; ``train_dataloader.dataset.feature.flow`` takes any flow model.
"""

train_dataloader = dict(
    dataset=dict(
        type="ffplug_face.MicroExpressionDataset",
        data_root="data/micro",
        manifest="manifest.csv",
        feature=dict(
            type="ffplug_face.FlowFeature",
            flow=dict(type="ffplug_face.FarnebackFlow"),
            flow_size=256,
            head="similarity",
            size=28,
            cache="cache/micro",
        ),
    )
)
model = dict(type="ffplug_face.GridBaseline", grid=7)
