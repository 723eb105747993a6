"""What only a graphics card can tell: `make check-gpu`, for a person who has one.

Every card computes what the CPU computes, step by step, and a line says of each check whether it passed, failed or was
skipped, and why. The same checks run on the CPU first, to show that they themselves work (--no-cpu leaves them out).
The exit code is 1 where a check failed; what was skipped does not fail.
"""

import argparse
import os
import sys
import time

# Ampere and Ada round the factors of float32 convolutions to TF32 otherwise, and nothing would be comparable with the
# CPU to more than three digits.
os.environ.setdefault('NVIDIA_TF32_OVERRIDE', '0')
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from helpers import gpu_checks as checks  # noqa: E402  (MXNet is loaded with it)

from bootstrap import cards  # noqa: E402
from runtime import mx  # noqa: E402


class Report:
    """Counts and prints what became of each check."""

    def __init__(self):
        self.counts = {'passed': 0, 'FAILED': 0, 'skipped': 0}

    def make(self, where, check, device):
        """Make a check and print a line; its name comes first, so that a crash of the process tells where."""
        print(f'{where}: {check.__name__.replace("_", " ")} ...', end=' ', flush=True)
        started = time.perf_counter()
        try:
            verdict, said = 'passed', check(device)
        except checks.Skip as reason:
            verdict, said = 'skipped', str(reason)
        except Exception as error:  # a check that cannot be finished has failed, whatever the reason; the others go on
            verdict, said = 'FAILED', f'{type(error).__name__}: {_last_line(error)}'
        self.counts[verdict] += 1
        print(f'{verdict}: {said} ({time.perf_counter() - started:.1f} s)', flush=True)

    def skip(self, where, reason):
        self.counts['skipped'] += 1
        print(f'{where}: skipped: {reason}', flush=True)


def main(argv=None):
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument('--no-cpu', dest='cpu', action='store_false', help='leave out the checks of the checks')
    args = made.parse_args(argv)
    report = Report()
    if args.cpu:
        check_devices(report, 'CPU', [mx.cpu(0), mx.cpu(1)], each=False)
    with_kernels = usable_cards(report)
    check_devices(report, 'GPU', with_kernels)
    check_torch(report)
    print(', '.join(f'{count} {verdict}' for verdict, count in report.counts.items()), end='')
    print('' if with_kernels else '; MXNet has computed on no card')
    return 1 if report.counts['FAILED'] else 0


def _last_line(error):
    return (str(error).strip().splitlines() or [''])[-1].strip()


def check_devices(report, kind, devices, each=True):
    """All checks, of each device or only of the first, and of two together."""
    for device in devices if each else devices[:1]:
        for check in checks.CHECKS:
            report.make(f'{kind} {device.device_id}' if each else kind, check, device)
    if devices:
        report.make(f'two {kind}s', checks.two_train_like_one, devices)


def usable_cards(report):
    """The contexts of the cards that MXNet can use; of the others the report says why not."""
    driver = cards.driver()
    if not driver or not driver.cards:
        report.skip('GPUs', 'no NVIDIA driver that shows a card here')
        return []
    found = []
    for number, card in enumerate(driver.cards):
        if not mx.runtime.Features().is_enabled('CUDA'):
            report.skip(
                f'GPU {number}', f'{card}: this MXNet is the CPU build; make venv MXNET=cu112 installs the other'
            )
        elif not cards.has_kernels(card):
            report.skip(f'GPU {number}', f'{cards.no_kernels(card)}; --engine torch is for it')
        else:
            print(f'GPU {number}: {card}')
            found.append(mx.gpu(number))
    return found


def check_torch(report):
    """PyTorch's engine, on whatever card PyTorch sees first."""
    report.make('PyTorch', checks.torch_replays_what_it_computes, mx.Context('gpu', 0))


if __name__ == '__main__':
    sys.exit(main())
