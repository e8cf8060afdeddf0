// Hands the processor from one stack to another: saves what a call must keep, and goes on where the other one stopped.
// void pentimento_switch(void** save, void* load), System V, x86-64.
.text
.globl pentimento_switch
.type pentimento_switch, @function
pentimento_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
.size pentimento_switch, .-pentimento_switch
.section .note.GNU-stack,"",@progbits
