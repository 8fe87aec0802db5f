"""RIFE as published: 10,071,550 parameters, and 636,665 of the teacher, which only training runs."""

model = dict(
    type="ffplug_ugsp.FrameInterpolator",
    network=dict(type="ffplug_ugsp.IFNet"),
    losses=[
        dict(type="ffplug_ugsp.LaplacianLoss"),
        dict(type="ffplug_ugsp.TeacherLoss", teacher=1.0, distill=0.01),
    ],
)
