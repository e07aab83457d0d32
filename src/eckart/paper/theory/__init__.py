"""The second half of the paper, line by line: plain arrays in, numbers out, and a check beside each
statement.

`attention` has Eq. (1) to (3), Lemma 1 and Theorem 1; `duals` Appendix B.2 and B.3; `bound` Theorem
2; `norms` Examples 1 to 4; `checks` the table of statements.

Columns are tokens: N demonstrations, then the test token. H_s are the demonstrations; `values` are
W_V H_s, v_i each, and `keys` W_K H_s. Shapes stand in the signatures, and every array may have
leading batch axes; a function raises an EckartError, in one line, for arrays that do not fit.
"""
