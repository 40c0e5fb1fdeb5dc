"""Run work in parallel and return the results in order."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(work: Callable[[Item], Result], items: Iterable[Item], *, at_once: int) -> Iterator[Result]:
    """The results of `work` in the order of the items, at most `at_once` running at a time.

    At most 2 x `at_once` items are ahead of the reader, so a slow reader bounds memory. The threads are
    daemons, which a thread pool's are not: after Ctrl-C none of them keeps the process alive. The first error
    is raised in its turn, and no work starts after it.
    """
    slots, is_over = threading.Semaphore(at_once), threading.Event()

    def run(item: Item, future: Future[Result]) -> None:
        with slots:
            if is_over.is_set():
                return
            try:
                future.set_result(work(item))
            except BaseException as error:
                is_over.set()
                future.set_exception(error)

    def begin(item: Item) -> Future[Result]:
        future: Future[Result] = Future()
        threading.Thread(target=run, args=(item, future), daemon=True).start()
        return future

    rest = iter(items)
    begun = deque(begin(item) for item in islice(rest, 2 * at_once))
    try:
        while begun:
            result = begun.popleft().result()
            begun.extend(begin(item) for item in islice(rest, 1))
            yield result
    finally:
        is_over.set()
