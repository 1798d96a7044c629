"""Graphs in words: shortest routes, orders of tasks, groups of friends, and colorings."""

import heapq

from gristmill.records.functions.draws import Draws
from gristmill.records.tasks.contract import NAMES, TOWNS, WHOLE_NUMBER, WORDS, Task, TaskFamily, bracketed, listed


class Route(TaskFamily):
    """Shortest routes over roads of given lengths."""

    name = "route"
    about = "the length of the shortest route between two towns"
    dial = "number of towns: level + 3"
    form = "whole number of kilometers"

    def task(self, level: int, draws: Draws) -> Task:
        size = level + 3
        towns = draws.sample(TOWNS, size)
        roads: dict[tuple[int, int], int] = {}
        for place in range(1, size):  # every town can be reached
            roads[draws.below(place), place] = draws.between(2, 40)
        for _ in range(size):
            one, other = sorted(draws.sample(range(size), 2))
            roads.setdefault((one, other), draws.between(2, 40))
        start, goal = draws.sample(range(size), 2)
        lines = [
            f"{towns[a]} - {towns[b]}: {length} km" if draws.chance(1, 2) else f"{towns[b]} - {towns[a]}: {length} km"
            for (a, b), length in roads.items()
        ]
        text = draws.choice(
            (
                "These roads connect some towns, and all can be driven both ways:",
                "A map lists the following two-way roads with their lengths:",
                "The towns of a region are joined by these roads, which run in both directions:",
            )
        )
        question = draws.choice(
            (
                f"How long is the shortest route from {towns[start]} to {towns[goal]}, in kilometers?",
                f"What is the length in kilometers of the shortest way from {towns[start]} to {towns[goal]}?",
            )
        )
        answer = shortest(roads, start, goal)
        return Task(
            "\n".join([text, *draws.shuffled(lines), f"{question} {draws.choice(WHOLE_NUMBER)}"]), str(answer), size
        )


class TaskOrder(TaskFamily):
    """Topological orders; of several, the one that comes first in the alphabet."""

    name = "task_order"
    about = "the alphabetically first order of tasks that respects what must come before what"
    dial = "number of tasks: level + 3"
    form = "list of names"

    def task(self, level: int, draws: Draws) -> Task:
        size = level + 3
        names = draws.sample(WORDS, size)  # in a valid order
        pairs = set()
        for _ in range(size + size // 2):
            first, second = sorted(draws.sample(range(size), 2))
            pairs.add((names[first], names[second]))
        rest, order = sorted(names), list[str]()
        while rest:
            free = next(n for n in rest if all(a in order for a, b in pairs if b == n))
            order.append(free)
            rest.remove(free)
        lines = [f"{a} must be built before {b}." for a, b in draws.shuffled(sorted(pairs))]
        text = draws.choice(
            (
                f"A program consists of the modules {listed(sorted(names))}, which are built one after another.",
                f"Plan the order in which to build these modules: {', '.join(sorted(names))}.",
                f"The modules {listed(draws.shuffled(names))} have to be built one at a time.",
            )
        )
        rule = draws.choice(
            (
                "At each point, build the module that comes first in the alphabet among those that are ready.",
                "Whenever several modules are ready to be built, take the alphabetically first of them.",
            )
        )
        example = bracketed(draws.sample([word for word in WORDS if word not in names], 3))
        form = f"Answer with the whole order as a list in square brackets, written like {example}."
        return Task("\n".join([text, *lines, f"{rule} {form}"]), bracketed(order), size)


class FriendGroups(TaskFamily):
    """Connected components of a graph of friends."""

    name = "friend_groups"
    about = "the number of groups that friendships form, or the size of the group of one person"
    dial = "number of people: 2 × level + 4"
    form = "whole number"

    def task(self, level: int, draws: Draws) -> Task:
        size = 2 * level + 4
        people = draws.sample(NAMES, size)
        pairs = {tuple(sorted(draws.sample(range(size), 2))) for _ in range(size * draws.between(6, 9) // 10)}
        group = list(range(size))
        for a, b in sorted(pairs):
            group = [group[a] if each == group[b] else each for each in group]
        verb = draws.choice(("are friends", "know each other", "are connected"))
        lines = [f"{people[a]} and {people[b]} {verb}" for a, b in draws.shuffled(sorted(pairs))]
        text = f"There are {size} people: {listed(people)}. {'. '.join(lines)}. There are no other pairs."
        rule = "Two people are in the same group if a chain of such pairs leads from one to the other."
        if draws.chance(1, 2):
            answer = len(set(group))
            question = draws.choice(
                ("How many groups are there, people on their own included?", "Into how many groups do they fall?")
            )
        else:
            person = draws.below(size)
            answer = group.count(group[person])
            question = draws.choice(
                (
                    f"How many people are in the group of {people[person]}, with {people[person]} counted?",
                    f"How large is the group that {people[person]} belongs to, {people[person]} included?",
                )
            )
        return Task(f"{text} {rule} {question} {draws.choice(WHOLE_NUMBER)}", str(answer), size)


class MapColors(TaskFamily):
    """The fewest colors of a graph: the chromatic number, by search."""

    name = "map_colors"
    about = "the fewest colors for countries of which neighbors must differ"
    dial = "number of countries: level + 3"
    form = "whole number"

    def task(self, level: int, draws: Draws) -> Task:
        size = level + 3
        towns = draws.sample(TOWNS, size)
        pairs = [(a, b) for b in range(size) for a in range(b)]
        edges = draws.sample(pairs, max(2, len(pairs) * draws.between(40, 70) // 100))
        shown = [(b, a) if draws.chance(1, 2) else (a, b) for a, b in edges]
        text = draws.choice(
            (
                f"The districts {listed(towns)} are to be colored on a map.",
                f"You color a map of {size} districts: {listed(towns)}.",
                f"A mapmaker colors the districts {listed(towns)}.",
            )
        )
        borders = "; ".join(f"{towns[a]} borders {towns[b]}" for a, b in shown)
        question = draws.choice(
            (
                "Districts that share a border must differ in color. What is the smallest number of colors for this?",
                "No two districts with a common border may have the same color. How many colors are needed at least?",
            )
        )
        answer = next(number for number in range(1, size + 1) if can_color(size, edges, number))
        return Task(
            f"{text} {borders}. There are no other borders. {question} {draws.choice(WHOLE_NUMBER)}", str(answer), size
        )


def shortest(roads: dict[tuple[int, int], int], start: int, goal: int) -> int:
    """The length of the shortest route over two-way roads (Dijkstra 1959); there is one."""
    settled: set[int] = set()
    queue = [(0, start)]
    while queue:
        length, place = heapq.heappop(queue)
        if place == goal:
            break
        if place in settled:
            continue
        settled.add(place)
        for (a, b), step in roads.items():
            if place in (a, b):
                heapq.heappush(queue, (length + step, a + b - place))
    return length


def can_color(size: int, edges: list[tuple[int, int]], number: int) -> bool:
    """Whether `number` colors suffice, by backtracking; a new color is tried once, since colors are alike."""
    near: list[set[int]] = [set() for _ in range(size)]
    for a, b in edges:
        near[a].add(b)
        near[b].add(a)
    order = sorted(range(size), key=lambda place: (-len(near[place]), place))
    colors: dict[int, int] = {}

    def fits(at: int) -> bool:
        if at == size:
            return True
        place = order[at]
        taken = {colors[other] for other in near[place] if other in colors}
        for color in range(min(number, max(colors.values(), default=-1) + 2)):
            if color not in taken:
                colors[place] = color
                if fits(at + 1):
                    return True
                del colors[place]
        return False

    return fits(0)
