"""Operators with one definition and several backends; see :mod:`ffplug.ops.contract`."""

from ffplug.ops.attention import AttentionWeights, attention_weights
from ffplug.ops.contract import Op, register_op, requested_backend, use_backend
from ffplug.ops.convolution import WinogradConv2d, pack_convolution, winograd_conv2d
from ffplug.ops.correlation import CorrLookup, CorrLookupOnDemand, corr_lookup, corr_lookup_on_demand, pool_levels
from ffplug.ops.depthwise_convolution import AddGELU, DepthwiseConv2d, add_gelu, depthwise_conv2d
from ffplug.ops.gaussians import (
    GaussianComposite,
    GaussianProjection,
    GaussianRayFlow,
    GaussianRender,
    NextFrame,
    gaussian_composite,
    gaussian_rasterize,
    gaussian_ray_flow,
    project_gaussians,
    ray_maps,
    spherical_harmonics,
)
from ffplug.ops.mesh import MeshRasterize, interpolate_attributes, mesh_rasterize
from ffplug.ops.motion_vectors import (
    MotionVectorRasterize,
    motion_vector_field,
    motion_vector_flow,
    motion_vector_rasterize,
    motion_vector_table,
    reference_distances,
)
from ffplug.ops.normalization import InstanceNorm, instance_norm
from ffplug.ops.product import batched_row_product, row_product, runs_onednn
from ffplug.ops.sparse_convolution import (
    SparseConv2d,
    active_pixels,
    pack_sparse_convolution,
    sparse_conv2d,
)
from ffplug.ops.splatting import SplatSum, forward_splat, splat_sum
from ffplug.ops.upsampling import ConvexUpsample, convex_upsample
from ffplug.ops.warping import BackwardWarp, ForwardWarpFlow, backward_warp, forward_warp_flow
from ffplug.ops.window_attention import LocalWindowAttention, local_window_attention

__all__ = [
    "AddGELU",
    "AttentionWeights",
    "BackwardWarp",
    "ConvexUpsample",
    "CorrLookup",
    "CorrLookupOnDemand",
    "DepthwiseConv2d",
    "ForwardWarpFlow",
    "GaussianComposite",
    "GaussianProjection",
    "GaussianRayFlow",
    "GaussianRender",
    "InstanceNorm",
    "LocalWindowAttention",
    "MeshRasterize",
    "MotionVectorRasterize",
    "NextFrame",
    "Op",
    "SparseConv2d",
    "SplatSum",
    "WinogradConv2d",
    "active_pixels",
    "add_gelu",
    "attention_weights",
    "backward_warp",
    "batched_row_product",
    "convex_upsample",
    "corr_lookup",
    "corr_lookup_on_demand",
    "depthwise_conv2d",
    "forward_splat",
    "forward_warp_flow",
    "gaussian_composite",
    "gaussian_rasterize",
    "gaussian_ray_flow",
    "instance_norm",
    "interpolate_attributes",
    "local_window_attention",
    "mesh_rasterize",
    "motion_vector_field",
    "motion_vector_flow",
    "motion_vector_rasterize",
    "motion_vector_table",
    "pack_convolution",
    "pack_sparse_convolution",
    "pool_levels",
    "project_gaussians",
    "ray_maps",
    "reference_distances",
    "register_op",
    "requested_backend",
    "row_product",
    "runs_onednn",
    "sparse_conv2d",
    "spherical_harmonics",
    "splat_sum",
    "use_backend",
    "winograd_conv2d",
]
