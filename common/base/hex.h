/* SPDX-License-Identifier: Apache-2.0 */
/* Hexadecimal digits. Pure; any thread. */
#ifndef CADRE_COMMON_BASE_HEX_H
#define CADRE_COMMON_BASE_HEX_H

/* The value of a digit, small or capital; -1: it is none. */
static inline int cad_hex_digit(char c)
{
	return c >= '0' && c <= '9'    ? c - '0'
		: c >= 'a' && c <= 'f' ? c - 'a' + 10
		: c >= 'A' && c <= 'F' ? c - 'A' + 10
				       : -1;
}

#endif
