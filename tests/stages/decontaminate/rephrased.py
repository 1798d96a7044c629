"""Problems of HumanEval in other words, by number of the item, and tasks that are none of them: written for tests."""

PROSE = (
    (
        0,
        "Write a Python function that receives numbers and a bound, and tells whether some pair among the "
        "numbers lies nearer together than the bound allows.",
    ),
    (
        1,
        "You get a text made of several separate groups of nested brackets. Split it into its balanced "
        "groups and return them as a list of strings; blanks in the input do not count.",
    ),
    (
        2,
        "Given a positive floating point number, return only what comes after the decimal point, that is the "
        "remainder that is left once the integer part has been taken away.",
    ),
    (
        3,
        "A bank account starts at nil. You are handed the list of deposits and withdrawals made on it. Say "
        "whether at any moment the balance drops below zero.",
    ),
    (
        4,
        "Compute the mean absolute deviation of a list of numbers around their mean: the average of the "
        "absolute differences between each element and the average of all.",
    ),
    (
        5,
        "Put a given delimiter number between every two neighbouring elements of a list of integers and "
        "return the new list.",
    ),
    (
        6,
        "The input holds several groups of nested parentheses separated by blanks. For each group output how "
        "deep its brackets are nested at most.",
    ),
    (
        9,
        "From a list of integers produce the list of running maxima: element i of the result is the largest "
        "number seen up to position i of the sequence.",
    ),
    (
        10,
        "Find the shortest palindrome that starts with the supplied string, by finding its longest "
        "palindromic suffix and appending the reverse of the prefix before it.",
    ),
    (
        12,
        "Out of a list of strings give back the longest one, and the first of them when several are of the "
        "same length; for an empty list give None.",
    ),
    (13, "Write a routine that returns the greatest common divisor of two integers."),
    (18, "Count in how many places a substring can be found in a string, overlapping occurrences included."),
    (31, "Decide whether a given number is prime, and return true or false accordingly."),
    (55, "Write a function which computes the n-th Fibonacci number."),
    (28, "Join a list of strings into a single string."),
    (23, "Return how many characters a string has."),
)
CODE = (
    (
        0,
        "from typing import List\n\n\ndef any_pair_near(values: List[float], bound: float) -> bool:\n    "
        '"""Tell whether two of the given values lie nearer to one another than the bound.\n    >>> '
        'any_pair_near([1.0, 2.0, 3.0], 0.5)\n    False\n    """',
    ),
    (
        9,
        'def running_maximum(values):\n    """For a list of integers, make the list whose i-th element is '
        'the greatest number met so far."""',
    ),
    (
        55,
        'def nth_fibonacci(k):\n    """Give the k-th number of the Fibonacci sequence.\n    >>> '
        'nth_fibonacci(10)\n    55\n    """',
    ),
    (
        31,
        'def check_prime(number):\n    """True when the number has no divisors but one and itself, else '
        'False.\n    >>> check_prime(6)\n    False\n    >>> check_prime(101)\n    True\n    """',
    ),
    (
        3,
        'def goes_overdrawn(moves):\n    """Starting from an empty bank account, the moves are deposits '
        'and withdrawals. Return True as soon as the balance is less than nothing."""',
    ),
    (
        20,
        'def nearest_pair(values):\n    """Choose the two numbers of the list (at least two long) that '
        'differ least and return them with the smaller one first."""',
    ),
    (
        16,
        'def num_different_letters(text):\n    """Count how many different characters there are in a '
        'text, capitals and small letters being the same."""',
    ),
    (
        36,
        'def count_sevens(limit):\n    """How often does the digit 7 occur in the whole numbers below '
        'limit that can be divided by 11 or by 13?"""',
    ),
)
OTHER = (
    "Write a Python function that reverses the rows of a matrix and transposes it, so that the picture "
    "is turned by ninety degrees.",
    "Given a list of words, group those that are anagrams of each other and return the groups.",
    "Implement a queue with two stacks, with methods push, pop and peek.",
    "Write a function which parses an ISO date and returns the day of the week.",
    "Explain how a mill wheel turns the power of a river into flour.",
    "Write a program that reads a CSV file and prints the mean of each numeric column.",
    "Given the root of a binary tree, return its depth.",
    "Write an SQL query that lists the ten customers with the highest revenue.",
    "Implement binary search over a sorted array of integers.",
    "Write a function that merges overlapping intervals and returns them sorted.",
    "Explain the difference between a list and a tuple in Python with examples.",
    "Write a Python class for a bank account with deposit and withdraw methods and an account history.",
    'def merge_sort(values):\n    """Sort a list of numbers by merging sorted halves."""',
    'def word_count(path):\n    """Return a dictionary from each word in the file to the number of times it occurs."""',
    'def levenshtein(a: str, b: str) -> int:\n    """The smallest number of insertions, deletions and '
    'substitutions that turn a into b."""',
)
