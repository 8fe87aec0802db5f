"""FacialFlowNet, crop 480×480; without data/FacialFlowNet, sequences of a procedural head in its layout."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.loaders import *

prepare_data = dict(
    type="ffplug.ProceduralStandIn",
    layout="ffn",
    data_root="data/FacialFlowNet",
    scenes=200,
    frames=20,
    size=(512, 512),
    textures="analytic",
    workers=4,
)

train_dataloader["dataset"] = dict(
    type="ffplug_decflow.FacialFlowNetDataset",
    data_root="data/FacialFlowNet",
    split="train",
    pipeline=[
        dict(type="ffplug_decflow.LoadFaceFlow"),
        dict(
            type="ffplug.RAFTDenseAugment",
            crop_size=(480, 480),
            min_scale=-0.2,
            max_scale=0.6,
            do_flip=True,
            mode="clean",
        ),
        dict(type="ffplug_decflow.PackFaceInputs"),
    ],
)
val_dataloader["dataset"] = dict(
    type="ffplug_decflow.FacialFlowNetDataset", data_root="data/FacialFlowNet", split="val"
)
val_evaluator = [dict(type="ffplug.FlowMetric"), dict(type="ffplug_decflow.FaceFlowMetric")]
