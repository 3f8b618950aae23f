"""The networks: one file each, and `MODELS`, from a name to the function that builds it."""

try:
    import keras  # noqa: F401
except ModuleNotFoundError:  # `python -m imagesr.models` shows this in one line
    raise ModuleNotFoundError("Networks need the package keras: pip install 'imagesr[train]'", name="keras") from None

from imagesr.models.edsr import edsr, edsr_baseline
from imagesr.models.espcn import espcn
from imagesr.models.fsrcnn import fsrcnn
from imagesr.models.linear import linear
from imagesr.models.rdn import rdn
from imagesr.models.realtime import realtime
from imagesr.models.srcnn import srcnn
from imagesr.models.srresnet import srresnet
from imagesr.models.strided import strided
from imagesr.models.vdsr import vdsr

MODELS = {
    "linear": linear,
    "realtime": realtime,
    "strided": strided,
    "srcnn": srcnn,
    "espcn": espcn,
    "fsrcnn": fsrcnn,
    "vdsr": vdsr,
    "edsr_baseline": edsr_baseline,
    "edsr": edsr,
    "rdn": rdn,
    "srresnet": srresnet,
}
