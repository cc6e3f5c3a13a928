"""A CUDA program without a toolkit: takes GPU memory through the driver's own library, and says how that went.

``cuda_probe.py MIB...`` takes each amount on device 0 after the other, prints one line of JSON with CUDA's result
codes (0 success, 2 out of memory) and the device's total in MiB as the program sees it, and holds what it got until
its standard input ends.
"""

import ctypes
import json
import sys


def main() -> None:
    cuda = ctypes.CDLL("libcuda.so.1")

    def required(name: str, *arguments: object) -> None:
        result = getattr(cuda, name)(*arguments)
        if result:
            sys.exit(f"{name} says {result}")

    device, context = ctypes.c_int(), ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    required("cuInit", 0)
    required("cuDeviceGet", ctypes.byref(device), 0)
    required("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    required("cuCtxSetCurrent", context)
    required("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    results = []
    for mib in sys.argv[1:]:
        pointer = ctypes.c_uint64()
        results.append(cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(int(mib) << 20)))
    print(json.dumps({"results": results, "total_mib": total.value >> 20}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
