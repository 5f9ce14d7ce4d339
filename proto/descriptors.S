/* SPDX-License-Identifier: Apache-2.0 */
/* The FileDescriptorSet of every .proto file, as bytes: what gRPC reflection answers with. */
#ifdef __CET__
#include <cet.h> /* one object that does not say so would turn it off for the program */
#endif
	.section .rodata
	.global cadre_descriptors, cadre_descriptors_end
	.balign 16
cadre_descriptors:
	.incbin "descriptors.fds"
cadre_descriptors_end:
	.byte 0
	.section .note.GNU-stack, "", @progbits
