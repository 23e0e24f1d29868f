# The server in a container; docs/how-to/deploy.md says how to build and run it.
FROM python:3.12-slim AS build
# The address of a package index that has PyTorch's wheels for CPUs. Without one, PyTorch comes
# from where pip takes everything: it works as well, and has some gigabytes of CUDA with it.
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/convnextv2
RUN /opt/convnextv2/bin/pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision
# The package takes its C++ kernels along, so that the image for use needs no compiler.
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends g++
COPY . /src
RUN python /src/scripts/bundle_kernels.py /src/build/kernels
RUN CONVNEXTV2_BUNDLE=build/kernels /opt/convnextv2/bin/pip install '/src[serve,engines]'

FROM python:3.12-slim
COPY --from=build /opt/convnextv2 /opt/convnextv2
ENV PATH="/opt/convnextv2/bin:$PATH" PYTHONDONTWRITEBYTECODE=1
RUN useradd --no-create-home --uid 10001 convnextv2
USER 10001
EXPOSE 8000
# Ready is later than alive: models are loaded and warmed up first.
HEALTHCHECK --start-period=120s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=5)"]
CMD ["convnextv2", "serve", "model=/model", "--host", "0.0.0.0"]
