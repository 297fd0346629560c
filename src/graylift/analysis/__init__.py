"""The judge: windows of both arms in, verdicts out, at any number of looks. Pure arithmetic; the controller calls it.

`judge` is the door (start, enter, observe, judge) and `state` what is stored between two looks (dump, load). Behind
them, bottom up: two kernels that turn one interval into evidence (`conditional`, `betting`), the mixture that
multiplies it up over the release (`mixture`), stable's trailing past (`reference`), what each check asks of them
(`evidence`), intervals of the effect (`bounds`), the split (`share`), absolute health (`sickness`), and the words
(`sentences`).
"""
