import sys

import numpy as np
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from same import upscale


def make(requests):
    results = [upscale(request["picture"].tobytes()) for request in requests]
    return [{"large": np.frombuffer(large, np.uint8)} for large in results]


if __name__ == "__main__":
    port = int(sys.argv[1])
    config = TritonConfig(http_address="127.0.0.1", http_port=port, grpc_port=port + 1, metrics_port=port + 2)
    with Triton(config=config) as triton:
        tensors = {
            "inputs": [Tensor(name="picture", dtype=np.uint8, shape=(-1,))],
            "outputs": [Tensor(name="large", dtype=np.uint8, shape=(-1,))],
        }
        triton.bind("upscale", make, config=ModelConfig(batching=False), **tensors)
        triton.serve()
