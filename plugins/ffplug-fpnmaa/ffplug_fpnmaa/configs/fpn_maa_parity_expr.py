"""The published teacher of expressions: all of Aff-Wild2, ExpW and AffectNet; about 39,000 steps."""

from mmengine.config import read_base

with read_base():
    from .fpn_maa_parity_va import *

model["head"]["tasks"] = dict(expr=7)
model["losses"] = [dict(type="ffplug_fpnmaa.MaskedCE")]
train_dataloader["dataset"]["datasets"][0].update(tasks="expr", every=1)
train_dataloader["dataset"]["datasets"][1].update(tasks="expr")
train_dataloader["dataset"]["datasets"].append(
    dict(
        type="ffplug_fpnmaa.ExpWDataset",
        data_root="data/ExpW",
        tasks="expr",
        pipeline=train_dataloader["dataset"]["datasets"][0]["pipeline"],
    )
)
prepare_data.append(
    dict(
        type="ffplug.ProceduralStandIn",
        layout="expw",
        data_root="data/ExpW",
        scenes=12,
        frames=16,
        size=(112, 112),
        textures="analytic",
    )
)
val_dataloader["dataset"].update(tasks="expr")
train_cfg.update(max_iters=39_000)
