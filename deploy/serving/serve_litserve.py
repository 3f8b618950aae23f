import sys

import litserve
from fastapi import Request, Response


class Upscale(litserve.LitAPI):
    def setup(self, device):
        from same import upscale

        self.upscale = upscale

    def decode_request(self, request: Request):
        return request["picture"].file.read()

    def predict(self, data):
        return self.upscale(data)

    def encode_response(self, output) -> Response:
        return Response(output, media_type="image/png")


if __name__ == "__main__":
    server = litserve.LitServer(Upscale(api_path="/upscale"), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
