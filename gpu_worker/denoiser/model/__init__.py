"""The EchoMimic-v2 networks: denoising UNet, reference UNet, motion modules, pose encoder.

Module and parameter names are those of the official checkpoints (antgroup/echomimic_v2), so these load
as they are.
"""

from gpu_worker.denoiser.model.denoiser import DenoisingUNet3D, ReferenceCache
from gpu_worker.denoiser.model.pose_encoder import PoseEncoder
from gpu_worker.denoiser.model.reference import ReferenceUNet2D
from gpu_worker.denoiser.unet_config import MotionConfig, UNetConfig, UNetConfigError

__all__ = [
    "DenoisingUNet3D",
    "MotionConfig",
    "PoseEncoder",
    "ReferenceCache",
    "ReferenceUNet2D",
    "UNetConfig",
    "UNetConfigError",
]
