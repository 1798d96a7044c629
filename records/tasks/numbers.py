"""Number theory, number bases and probability."""

from fractions import Fraction
from math import comb, gcd, lcm

from gristmill.records.functions.draws import Draws
from gristmill.records.tasks.contract import WHOLE_NUMBER, Task, TaskFamily, listed

DIGITS = "0123456789ABCDEF"
PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61)


class NumberTheory(TaskFamily):
    """Divisors, multiples, remainders of powers, and prime factors."""

    name = "number_theory"
    about = "a greatest common divisor, least common multiple, remainder of a power, or the divisors of a number"
    dial = "digits of the largest number: level + 2"
    form = "whole number"

    def task(self, level: int, draws: Draws) -> Task:
        num_digits = level + 2
        kind = draws.choice((self._gcd, self._lcm, self._power, self._divisors, self._largest_prime))
        question, answer = kind(num_digits, draws)
        return Task(f"{question} {draws.choice(WHOLE_NUMBER)}", str(answer), num_digits)

    def _of_digits(self, num_digits: int, draws: Draws) -> int:
        return draws.between(10 ** (num_digits - 1), 10**num_digits - 1)

    def _gcd(self, num_digits: int, draws: Draws) -> tuple[str, int]:
        common = draws.between(2, 10 ** ((num_digits + 1) // 2) - 1)
        high = (10**num_digits - 1) // common
        low = -(-(10 ** (num_digits - 1)) // common)
        one, other = common * draws.between(low, high), common * draws.between(low, high)
        text = draws.choice(
            ("What is the greatest common divisor of {} and {}?", "Find the largest number that divides {} and {}.")
        )
        return text.format(one, other), gcd(one, other)

    def _lcm(self, num_digits: int, draws: Draws) -> tuple[str, int]:
        one, other = self._of_digits(num_digits, draws), draws.between(4, 60)
        text = draws.choice(
            (
                "What is the least common multiple of {} and {}?",
                "Find the smallest number above 0 that {} and {} divide.",
            )
        )
        return text.format(one, other), lcm(one, other)

    def _power(self, num_digits: int, draws: Draws) -> tuple[str, int]:
        base, power, modulus = self._of_digits(num_digits, draws), draws.between(2, 40), draws.between(3, 97)
        text = draws.choice(
            ("What is the remainder when {}^{} is divided by {}?", "Compute {}^{} modulo {}, as a number from 0 on.")
        )
        return text.format(base, power, modulus), pow(base, power, modulus)

    def _factors(self, num_digits: int, draws: Draws) -> list[int]:
        """Primes whose product has `num_digits` digits."""
        while True:
            factors, product = [], 1
            while product < 10 ** (num_digits - 1):
                factors.append(draws.choice(PRIMES))
                product *= factors[-1]
            if product < 10**num_digits:
                return factors

    def _divisors(self, num_digits: int, draws: Draws) -> tuple[str, int]:
        factors, product, count = self._factors(num_digits, draws), 1, 1
        for prime in set(factors):
            product *= prime ** factors.count(prime)
            count *= factors.count(prime) + 1
        text = draws.choice(
            ("How many positive divisors does {} have?", "Count the positive divisors of {}, 1 and itself included.")
        )
        return text.format(product), count

    def _largest_prime(self, num_digits: int, draws: Draws) -> tuple[str, int]:
        factors, product = self._factors(num_digits, draws), 1
        for prime in factors:
            product *= prime
        text = draws.choice(("What is the largest prime factor of {}?", "Which is the largest prime that divides {}?"))
        return text.format(product), max(factors)


class Bases(TaskFamily):
    """Numbers in one base, written in another. Answers have digits only: letters would be read as variables."""

    name = "bases"
    about = "a number in base 2 to 16, written in base 2 to 10"
    dial = "digits of the number: level + 3"
    form = "digits of the target base"

    def task(self, level: int, draws: Draws) -> Task:
        num_digits = level + 3
        base = draws.choice((2, 3, 4, 5, 7, 8, 10, 12, 16))
        target = draws.choice([other for other in (2, 3, 5, 6, 7, 8, 9, 10) if other != base])
        value = draws.between(base ** (num_digits - 1), base**num_digits - 1)
        text = draws.choice(
            (
                "Convert {number} from base {base} to base {target}.",
                "The number {number} is written in base {base}. Write it in base {target}.",
                "What is the base-{target} form of the base-{base} number {number}?",
            )
        )
        letters = {12: " A and B are the digits 10 and 11.", 16: " A to F are the digits 10 to 15."}.get(base, "")
        form = draws.choice(
            (
                f"Answer with the base-{target} digits alone.",
                f"Give only the digits in base {target}, without a prefix.",
            )
        )
        question = text.format(number=in_base(value, base), base=base, target=target)
        return Task(f"{question}{letters} {form}", in_base(value, target), num_digits)


class Probability(TaskFamily):
    """Draws without replacement, and sums of dice."""

    name = "probability"
    about = "the probability of draws from a bag, or of a sum of dice"
    dial = "number of draws or dice: level + 1"
    form = "fraction in lowest terms, such as 3/8"

    def task(self, level: int, draws: Draws) -> Task:
        number = level + 1
        question, answer = draws.choice((self._dice, self._all_of_color, self._at_least_one))(number, draws)
        form = draws.choice(
            (
                "Answer with a fraction in lowest terms, such as 3/8.",
                "Give the probability as a reduced fraction of the form a/b.",
            )
        )
        return Task(f"{question} {form}", f"{answer.numerator}/{answer.denominator}", number)

    def _dice(self, number: int, draws: Draws) -> tuple[str, Fraction]:
        sides = draws.choice((4, 6, 8, 10, 12, 20))
        total = draws.between(number + 1, number * sides - 1)
        ways = [1]  # number of ways to each sum
        for _ in range(number):
            ways = [sum(ways[max(0, at - sides) : at]) for at in range(len(ways) + sides)]
        what, count = draws.choice(
            (("exactly {}", ways[total]), ("at least {}", sum(ways[total:])), ("at most {}", sum(ways[: total + 1])))
        )
        text = draws.choice(
            (
                "You roll {number} fair dice with {sides} sides each, numbered from 1. What is the probability that "
                "their sum is {what}?",
                "{number} fair {sides}-sided dice, numbered 1 to {sides}, are rolled. How likely is a sum of {what}?",
            )
        )
        return text.format(number=number, sides=sides, what=what.format(total)), Fraction(count, sides**number)

    def _bag(self, number: int, draws: Draws) -> tuple[str, str, int, int]:
        """(the bag in words, one of its colors, balls of that color, all balls)."""
        colors = draws.sample(("red", "blue", "green", "white", "black", "yellow"), draws.between(2, 3))
        counts = [draws.between(number + 1, number + 8) for _ in colors]
        bag = listed([f"{count} {color}" for count, color in zip(counts, colors)])
        return f"{draws.choice(('bag', 'box', 'jar'))} holds {bag} balls", colors[0], counts[0], sum(counts)

    def _all_of_color(self, number: int, draws: Draws) -> tuple[str, Fraction]:
        bag, color, count, total = self._bag(number, draws)
        text = draws.choice(
            (
                f"A {bag}. You draw {number} balls without putting any back. What is the probability that all "
                f"{number} are {color}?",
                f"A {bag}. {number} balls are taken out at random, one after another, and none is returned. "
                f"How likely is it that every one of them is {color}?",
            )
        )
        return text, Fraction(comb(count, number), comb(total, number))

    def _at_least_one(self, number: int, draws: Draws) -> tuple[str, Fraction]:
        bag, color, count, total = self._bag(number, draws)
        text = draws.choice(
            (
                f"A {bag}. You take {number} of them at random, all at once. What is the probability that at least "
                f"one is {color}?",
                f"A {bag}. If {number} balls are drawn at random without replacement, what is the chance of getting "
                f"at least one {color} ball?",
            )
        )
        return text, 1 - Fraction(comb(total - count, number), comb(total, number))


def in_base(value: int, base: int) -> str:
    """A whole number from 1 on in a base of up to 16."""
    digits = ""
    while value:
        value, digit = divmod(value, base)
        digits = DIGITS[digit] + digits
    return digits
