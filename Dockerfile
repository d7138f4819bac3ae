# JupyterLab with the course, on the processor:
#   docker build -t kv-cache-course .
#   docker run --rm -it -p 8888:8888 -v kv-cache-work:/home/student/course/notebooks kv-cache-course
FROM python:3.12.12-slim-bookworm
RUN useradd --create-home student
USER student
RUN mkdir /home/student/course
WORKDIR /home/student/course
COPY --chown=student:student . .
RUN python3 course.py setup --cpu && rm -rf ~/.cache
EXPOSE 8888
CMD ["python3", "course.py", "lab", "--ip", "0.0.0.0", "--port", "8888"]
