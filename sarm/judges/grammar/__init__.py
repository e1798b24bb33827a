"""The one grammar in which words of judges and explainers are read: thoughts, markup, scales, labels, lists, letters. No I/O.

May import: nothing beside it.

It takes what an answer states and nothing else. What it does not understand stays unread (None), and the caller counts it: a thought,
a scale's end, a range, another scale and another label's number are never a value; where statements contradict each other, there is none.
"""
