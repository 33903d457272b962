#!/usr/bin/env python3
"""Makes ptx/*.ptx, which the library embeds, from the kernels beside this file.

    compile.py             writes ptx/<name>.ptx for every <name>.cu
    compile.py --check     fails, with a diff, where a committed file differs from what would be written
    compile.py --assemble  assembles the committed files for every architecture and prints what each kernel takes

The compiler and the assembler are pinned wheels of NVIDIA's, put by pip into the folder of --tools (by default a
temporary one). An old NVRTC, so that old drivers take its PTX; a new ptxas, so that new architectures are there.
"""

import argparse
import ctypes
import difflib
import os
import pathlib
import re
import subprocess
import sys
import tempfile

KERNELS = pathlib.Path(__file__).resolve().parent
PTX = KERNELS / "ptx"

COMPILER = (
    "nvidia-cuda-nvrtc-cu12==12.1.105",
    "339b385f50c309763ca65456ec75e17bbefcbbf2893f462cb8b90584cd27a1c2",
    "nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
)
ASSEMBLER = (
    "nvidia-cuda-nvcc==13.5.37",
    "f5c4f7ead5d964fb4af42bbf1e6d3ec3c1e6e9d83b53749f691d387e7fcaa3a7",
    "nvidia/cu13/bin/ptxas",
)

# Every operation rounded to nearest, and fused only where the source says so.
OPTIONS = [
    "--gpu-architecture=compute_75",
    "--std=c++17",
    "--fmad=false",
    "--ftz=false",
    "--prec-sqrt=true",
    "--prec-div=true",
]
ARCHITECTURES = ["sm_75", "sm_80", "sm_90", "sm_100", "sm_120"]

# The exit status when a tool cannot be fetched: nothing was compared or assembled.
UNAVAILABLE = 77


def installed(tool, tools, wheels):
    """The path of a file of a pinned wheel, which pip fetches unless it is there."""
    requirement, sha256, path = tool
    # A folder each: pip replaces what two wheels of NVIDIA's share.
    folder = tools / requirement
    if not (folder / path).exists():
        listed = folder / "requirements.txt"
        folder.mkdir(parents=True, exist_ok=True)
        listed.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--require-hashes"]
        command += ["--target", folder, "--requirement", listed]
        if wheels is not None:
            command += ["--no-index", "--find-links", wheels]
        if subprocess.run(command, check=False).returncode != 0:
            print(f"{requirement} could not be had", file=sys.stderr)
            sys.exit(UNAVAILABLE)
    return folder / path


def load_compiler(path):
    """NVRTC. It looks for its builtins beside itself only if they are loaded already."""
    for builtins in path.parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(path))


def texts(values):
    return (ctypes.c_char_p * len(values))(*[value.encode() for value in values])


def compile_kernels(nvrtc, source):
    """The PTX of one source file."""
    headers = sorted(KERNELS.glob("*.cuh"))
    program = ctypes.c_void_p()
    check(
        nvrtc,
        nvrtc.nvrtcCreateProgram(
            ctypes.byref(program),
            source.read_text(encoding="utf-8").encode(),
            source.name.encode(),
            len(headers),
            texts([header.read_text(encoding="utf-8") for header in headers]),
            texts([header.name for header in headers]),
        ),
    )
    result = nvrtc.nvrtcCompileProgram(program, len(OPTIONS), texts(OPTIONS))
    log = output_of(nvrtc, program, "ProgramLog").strip()
    if log:
        print(log, file=sys.stderr)
    check(nvrtc, result)
    # NVRTC puts constants of its own <nv/target> into every module; nothing here uses them.
    lines = output_of(nvrtc, program, "PTX").splitlines(keepends=True)
    ptx = "".join(line for line in lines if not re.match(r"\.global \S+ \d+ \S+ \w*2nv6target", line))
    check(nvrtc, nvrtc.nvrtcDestroyProgram(ctypes.byref(program)))
    return ptx


def output_of(nvrtc, program, what):
    size = ctypes.c_size_t()
    check(nvrtc, getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    check(nvrtc, getattr(nvrtc, f"nvrtcGet{what}")(program, text))
    return text.value.decode()


def check(nvrtc, result):
    if result != 0:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        sys.exit(nvrtc.nvrtcGetErrorString(result).decode())


def difference(path, wanted):
    """How a committed file differs from what it should be; empty if it doesn't."""
    committed = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = [committed.splitlines(keepends=True), wanted.splitlines(keepends=True)]
    return "".join(difflib.unified_diff(*lines, f"committed/{path.name}", f"compiled/{path.name}"))


def write_or_compare(nvrtc, compare):
    """Exits if a file differs that is to be compared."""
    wanted = {PTX / f"{source.stem}.ptx": compile_kernels(nvrtc, source) for source in sorted(KERNELS.glob("*.cu"))}
    if not compare:
        PTX.mkdir(exist_ok=True)
        for path, ptx in wanted.items():
            path.write_text(ptx, encoding="utf-8")
        return
    differences = "".join(difference(path, ptx) for path, ptx in wanted.items())
    left_over = sorted(path.name for path in set(PTX.glob("*.ptx")) - set(wanted))
    if differences or left_over:
        print(differences, *[f"{name} has no source" for name in left_over], sep="\n")
        sys.exit("ptx/ is not what the kernels compile to: run compile.py")


def assemble(ptxas, architectures):
    """Prints registers, shared memory and spills of each kernel; exits where one spills or doesn't assemble."""
    print(f"{'kernel':<20}{'':<8}registers  shared  stack  spilled")
    failed = False
    for ptx in sorted(PTX.glob("*.ptx")):
        for architecture in architectures:
            command = [ptxas, "-v", "-Werror", "--warn-on-spills", "-arch", architecture, "-o", os.devnull, ptx]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode != 0:
                print(run.stdout, run.stderr, sep="", file=sys.stderr)
                failed = True
            for kernel, numbers in resources(run.stderr):
                print(f"{kernel:<20}{architecture:<8}{'{:>9}{:>8}{:>7}{:>9}'.format(*numbers)}")
    if failed:
        sys.exit("not assembled")


def resources(log):
    """(kernel, [registers, shared bytes, stack bytes, spilled bytes]) for each kernel in the output of `ptxas -v`."""
    for part in log.split("Compiling entry function ")[1:]:
        kernel = re.match(r"'(\w+)'", part)[1]
        patterns = [r"Used (\d+) registers", r"(\d+) bytes smem", r"(\d+) bytes stack", r"(\d+) bytes spill stores"]
        found = [re.search(pattern, part) for pattern in patterns]
        yield kernel, [int(match[1]) if match else 0 for match in found]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--assemble", action="store_true", help="assemble what is committed")
    parser.add_argument("--tools", type=pathlib.Path, help="where the wheels are, or will be, unpacked")
    parser.add_argument("--wheels", type=pathlib.Path, help="a folder that has the wheels, instead of PyPI")
    parser.add_argument("--architecture", action="append", help="assemble for this one (may be given again)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        tools = arguments.tools or pathlib.Path(temporary)
        if arguments.assemble:
            assemble(installed(ASSEMBLER, tools, arguments.wheels), arguments.architecture or ARCHITECTURES)
        if arguments.check or not arguments.assemble:
            write_or_compare(load_compiler(installed(COMPILER, tools, arguments.wheels)), arguments.check)


if __name__ == "__main__":
    main()
